/* A key in the process's own keyring (keyrings(7)). */
#include "../subject.h"
#include <linux/keyctl.h>
#include <sys/syscall.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (syscall(SYS_add_key, "user", "nbcr-subject", "secret", (size_t)6, KEY_SPEC_PROCESS_KEYRING) < 0)
        subject_skip("an OS kernel with keys");
    subject_wait(NULL);
    char payload[8] = "";
    long key = MUST(syscall(SYS_request_key, "user", "nbcr-subject", NULL, 0));
    EXPECT(syscall(SYS_keyctl, KEYCTL_READ, key, payload, sizeof payload) == 6 && !strcmp(payload, "secret"), "the key");
    subject_pass();
}
