/*
 * Leases on files, one for reading, one for writing: whoever opens them otherwise makes the OS kernel tell the holder.
 * Of three more their holder has been told, and has not answered yet.
 */
#include "../subject.h"
#include <signal.h>

/* In a folder: the harness reads what lies beside it, which would make the OS kernel ask for the lease. */
#define FILE_PATH(name) strcat(strcpy((char[PATH_MAX]){""}, subject_path("leased/")), name)

static int make(const char *name, int flags, int kind)
{
    close((int)MUST(open(FILE_PATH(name), O_RDWR | O_CREAT | O_TRUNC, 0600)));
    int fd = (int)MUST(open(FILE_PATH(name), flags));
    if (fcntl(fd, F_SETLEASE, kind))
        subject_skip("a file system with leases");
    MUST(fcntl(fd, F_SETSIG, SIGUSR1));
    return fd;
}

static void expect_asked(const char *name, int fd, int kind, int flags)
{
    EXPECT(fcntl(fd, F_GETLEASE) == kind, "the lease on %s is %d", name, fcntl(fd, F_GETLEASE));
    EXPECT(open(FILE_PATH(name), flags | O_NONBLOCK) == -1 && errno == EWOULDBLOCK, "%s: %d", name, errno);
    sigset_t usr1;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    siginfo_t info;
    struct timespec patience = {5, 0};
    EXPECT(sigtimedwait(&usr1, &info, &patience) == SIGUSR1 && info.si_fd == fd, "%s: nobody was told", name);
    MUST(fcntl(fd, F_SETLEASE, F_UNLCK));
    MUST(open(FILE_PATH(name), flags));
}

static const struct {
    const char *name;
    int flags, kind, by, lowered;
} asked[] = {
    {"all of reading", O_RDONLY, F_RDLCK, O_WRONLY, F_UNLCK},
    {"some of writing", O_WRONLY, F_WRLCK, O_RDONLY, F_RDLCK},
    {"all of writing", O_RDONLY, F_WRLCK, O_WRONLY, F_UNLCK},
};

static void expect_waiting(int i, int fd)
{
    EXPECT(fcntl(fd, F_GETLEASE) == asked[i].lowered, "%s: asked for %d", asked[i].name, fcntl(fd, F_GETLEASE));
    EXPECT(open(FILE_PATH(asked[i].name), asked[i].by | O_NONBLOCK) == -1 && errno == EWOULDBLOCK, "%s: %s",
           asked[i].name, strerror(errno));
    if (asked[i].lowered == F_UNLCK) /* whoever reads waits for a lease for writing only */
        EXPECT((open(FILE_PATH(asked[i].name), O_RDONLY | O_NONBLOCK) == -1) == (asked[i].kind == F_WRLCK),
               "%s: a reader", asked[i].name);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    sigset_t usr1;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    MUST(sigprocmask(SIG_BLOCK, &usr1, NULL));
    MUST(mkdir(subject_path("leased"), 0700));
    int reads = make("read", O_RDONLY, F_RDLCK), writes = make("written", O_RDWR, F_WRLCK);
    int fds[3];
    for (int i = 0; i < 3; i++) {
        fds[i] = make(asked[i].name, asked[i].flags, asked[i].kind);
        EXPECT(open(FILE_PATH(asked[i].name), asked[i].by | O_NONBLOCK) == -1, "%s", asked[i].name);
        EXPECT(sigwaitinfo(&usr1, NULL) == SIGUSR1, "%s: nobody is told", asked[i].name);
        expect_waiting(i, fds[i]);
    }
    subject_wait(NULL);
    struct timespec none = {0};
    EXPECT(sigtimedwait(&usr1, NULL, &none) == -1 && errno == EAGAIN, "somebody was told once more");
    for (int i = 0; i < 3; i++) {
        expect_waiting(i, fds[i]);
        struct {
            int type, pid;
        } owner = {0};
        MUST(fcntl(fds[i], F_GETOWN_EX, &owner));
        EXPECT(owner.pid == getpid() && fcntl(fds[i], F_GETSIG) == SIGUSR1, "%s: whom to tell", asked[i].name);
        MUST(fcntl(fds[i], F_SETLEASE, F_UNLCK));
        MUST(open(FILE_PATH(asked[i].name), asked[i].by | O_NONBLOCK));
    }
    expect_asked("read", reads, F_RDLCK, O_WRONLY);
    expect_asked("written", writes, F_WRLCK, O_RDONLY);
    subject_pass();
}
