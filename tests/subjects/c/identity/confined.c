/* A process that confines itself when it is told to, in the way its argument says, and finds itself unharmed. */
#include "../subject.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

static const char *how;

static void limit(int which, rlim_t value)
{
    struct rlimit both = {value, value};
    MUST(setrlimit(which, &both));
}

static void confine(void)
{
    if (!strcmp(how, "filter")) {
        struct sock_filter all[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
        struct sock_fprog program = {1, all};
        MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        MUST(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
    } else if (!strcmp(how, "namespace")) {
        if (unshare(geteuid() ? CLONE_NEWUSER | CLONE_NEWUTS : CLONE_NEWUTS))
            subject_skip("namespaces: %s", strerror(errno));
    } else {
        limit(!strcmp(how, "data") ? RLIMIT_DATA : RLIMIT_STACK, 4096);
    }
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    how = argc > 2 ? argv[2] : "data";
    static char area[1 << 16];
    subject_fill(area, sizeof area, 5);
    subject_wait(confine);
    EXPECT_FILLED(area, sizeof area, 5, "memory");
    subject_pass();
}
