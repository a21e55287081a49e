/* A key in the user's keyring (keyrings(7)), read by its number and found by its name. */
#include "../subject.h"
#include <linux/keyctl.h>
#include <sys/syscall.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char name[64], payload[8] = "";
    snprintf(name, sizeof name, "nbcr-subject-%d", (int)getpid());
    long key = syscall(SYS_add_key, "user", name, "payload", 7, KEY_SPEC_USER_KEYRING);
    if (key == -1)
        subject_skip("keys: %s", strerror(errno));
    subject_wait(NULL);
    long size = syscall(SYS_keyctl, KEYCTL_READ, key, payload, sizeof payload);
    EXPECT(size == 7 && strcmp(payload, "payload") == 0, "the key cannot be read: %s", strerror(errno));
    long found = syscall(SYS_request_key, "user", name, NULL, 0);
    EXPECT(found == key, "by its name key %ld is found instead of %ld", found, key);
    MUST(syscall(SYS_keyctl, KEYCTL_INVALIDATE, key));
    subject_pass();
}
