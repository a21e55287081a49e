/*
 * Processes under seccomp filters: two of them, with threads that share them, inherited by a child that adds its own, one
 * that forbids what a woken sleeper goes on by (restart_syscall), none of one's own rights given up, or strict mode, by
 * argument.
 */
#include "../subject.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static const char *what;
static int to[2], from[2];
static int before;

/* Answer one system call with an error, let all others pass. */
static void forbid(int number, int error, unsigned flags)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, error ? SECCOMP_RET_ERRNO | (unsigned)error : SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, code};
    if (strcmp(what, "privileged") != 0)
        MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program))
        subject_skip("seccomp filters: %s", strerror(errno));
}

static int forbidden(long number)
{
    return syscall(number, 0xffffffff, 0, 0) == -1 ? errno : 0;
}

static int count(void)
{
    return atoi(subject_proc("status", "Seccomp_filters:"));
}

static void *run(void *argument)
{
    volatile bool *end = argument;
    while (!*end)
        subject_tick();
    return (void *)(long)forbidden(SYS_personality);
}

_Noreturn static void strict(void)
{
    char order, answer = 's';
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0))
        answer = '?';
    if (write(from[1], &answer, 1) == 1 && read(to[0], &order, 1) == 1) {
        if (order == 'k')
            syscall(SYS_getpid);
        if (write(from[1], &order, 1) != 1)
            order = 0;
    }
    for (;;)
        syscall(SYS_exit, 7);
}

_Noreturn static void child(void)
{
    char order = 0;
    forbid(SYS_sysinfo, EXDEV, 0);
    if (write(from[1], "r", 1) != 1 || read(to[0], &order, 1) != 1)
        _exit(1);
    _exit(forbidden(SYS_personality) != EXDEV ? 2 : forbidden(SYS_sysinfo) != EXDEV ? 3 : count() != 3 ? 4 : 7);
}

static void with_child(bool is_strict)
{
    char answer;
    MUST(pipe(to));
    MUST(pipe(from));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        if (is_strict)
            strict();
        child();
    }
    EXPECT(read(from[0], &answer, 1) == 1 && answer == (is_strict ? 's' : 'r'), "the child did not begin");
    subject_wait(NULL);
    MUST(write(to[1], is_strict ? "k" : "x", 1));
    int status;
    MUST(waitpid(pid, &status, 0));
    if (is_strict)
        EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "a strict child made a call: %#x", status);
    else
        EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 7, "the child's status is %#x", status);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    what = argc > 2 ? argv[2] : "";
    bool is_strict = strcmp(what, "strict") == 0, end = false;
    if (!is_strict) {
        forbid(SYS_personality, EXDEV, 0);
        forbid(SYS_swapon, ENOTTY, SECCOMP_FILTER_FLAG_LOG);
    }
    if (strcmp(what, "woken") == 0)
        forbid(SYS_restart_syscall, 0, 0);
    before = count();
    if (is_strict || strcmp(what, "child") == 0)
        with_child(is_strict);
    else if (strcmp(what, "threads") == 0) {
        pthread_t threads[3];
        for (int i = 0; i < 3; i++)
            MUST0(pthread_create(&threads[i], NULL, run, &end));
        subject_all_asleep(3);
        subject_wait(NULL);
        forbid(SYS_sysinfo, EXDEV, SECCOMP_FILTER_FLAG_TSYNC); /* fails unless all have the very same ones */
        end = true;
        for (int i = 0; i < 3; i++) {
            void *found;
            MUST0(pthread_join(threads[i], &found));
            EXPECT((long)found == EXDEV, "the filter of a thread is gone");
        }
        subject_pass();
    } else
        subject_wait(NULL);
    if (is_strict)
        subject_pass();
    EXPECT(forbidden(SYS_personality) == EXDEV, "the first filter is gone");
    EXPECT(forbidden(SYS_swapon) == ENOTTY, "the second filter is gone");
    EXPECT(count() == before, "there are %d filters instead of %d", count(), before);
    EXPECT(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == (strcmp(what, "privileged") != 0), "no_new_privs");
    subject_pass();
}
