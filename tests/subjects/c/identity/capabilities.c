/* Capabilities: some given up, bounding set, ambient, securebits (privileged to set up). */
#include "../subject.h"
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct __user_cap_data_struct data[2] = {0}, now[2] = {0};
    if (prctl(PR_CAPBSET_DROP, CAP_SYS_BOOT, 0, 0, 0) || prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS, 0, 0, 0))
        subject_skip("CAP_SETPCAP");
    unsigned kept = 1u << CAP_NET_BIND_SERVICE | 1u << CAP_KILL | 1u << CAP_DAC_OVERRIDE | 1u << CAP_SYS_PTRACE;
    data[0].permitted = kept, data[0].effective = kept & ~(1u << CAP_KILL), data[0].inheritable = 1u << CAP_KILL;
    MUST(syscall(SYS_capset, &header, data));
    MUST(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0));
    subject_wait(NULL);
    MUST(syscall(SYS_capget, &header, now));
    EXPECT(!memcmp(now, data, sizeof data), "permitted %#x, effective %#x, inheritable %#x", now[0].permitted,
           now[0].effective, now[0].inheritable);
    EXPECT(prctl(PR_CAPBSET_READ, CAP_SYS_BOOT, 0, 0, 0) == 0, "the bounding set grew");
    EXPECT(prctl(PR_CAPBSET_READ, CAP_CHOWN, 0, 0, 0) == 1, "the bounding set shrank");
    EXPECT(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0) == 1, "the ambient set is lost");
    EXPECT(prctl(PR_GET_SECUREBITS) == SECBIT_KEEP_CAPS, "securebits %#x", prctl(PR_GET_SECUREBITS));
    subject_pass();
}
