/*
 * Processes that share descriptors, or folders and umask, without being threads (clone(2): CLONE_FILES, CLONE_FS), by
 * argument: parent and child, a chain of three, or siblings of which one has forked the other (CLONE_PARENT).
 */
#include "../subject.h"
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

struct actor {
    pid_t pid; /* 0: ourselves */
    int ask, answer;
};

static int to[2][2], from[2][2]; /* of two others */
static int flags;
static bool siblings, chain;
static struct actor one, two;
static long opened = -1;

static ino_t inode_of(const char *path)
{
    struct stat found;
    MUST(stat(path, &found));
    return found.st_ino;
}

/* What an actor does; a negative result is an error number. */
static long act(char what, int number)
{
    struct stat found;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10};
    long result = -1;
    if (what == 'o')
        result = open(subject_path("shared"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    else if (what == 'i')
        result = fstat(number, &found) ? -1 : (long)found.st_ino;
    else if (what == 'c')
        result = close(number);
    else if (what == 'd')
        result = dup2(number, 200);
    else if (what == 'f')
        result = fcntl(number, F_GETFD);
    else if (what == 'F')
        result = fcntl(number, F_SETFD, 0);
    else if (what == 'l')
        result = fcntl(number, F_SETLK, &lock);
    else if (what == '/')
        result = chdir("/");
    else if (what == 'h')
        result = chdir(subject_path("folder"));
    else if (what == '.')
        result = stat(".", &found) ? -1 : (long)found.st_ino;
    else if (what == 'u')
        result = umask((mode_t)number);
    return result == -1 ? -errno : result;
}

static long ask(const struct actor *whom, char what, int number)
{
    if (!whom->pid)
        return act(what, number);
    int order[2] = {what, number};
    long result;
    MUST(write(whom->ask, order, sizeof order));
    EXPECT(read(whom->answer, &result, sizeof result) == sizeof result, "no answer to %c", what);
    return result;
}

_Noreturn static void serve(int which)
{
    int order[2];
    ssize_t got;
    for (;;) {
        while ((got = read(to[which][0], order, sizeof order)) == -1 && errno == EINTR)
            ;
        if (got != sizeof order || order[0] == 'q')
            _exit(7);
        long result = act((char)order[0], order[1]);
        MUST(write(from[which][1], &result, sizeof result));
    }
}

static pid_t start(int more)
{
    pid_t pid = (pid_t)MUST(syscall(SYS_clone, more | SIGCHLD, 0, 0, 0, 0));
    if (pid == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    return pid;
}

static void spoil(void)
{
    if (flags & CLONE_FILES)
        ask(&one, 'c', (int)opened);
    if (flags & CLONE_FS) {
        ask(&one, '/', 0);
        ask(&one, 'u', 0);
    }
}

static void check_descriptors(void)
{
    ino_t file = inode_of(subject_path("shared"));
    EXPECT(ask(&one, 'i', (int)opened) == (long)file, "the first has not what the second opened");
    EXPECT(ask(&two, 'i', (int)opened) == (long)file, "the second has lost what it opened");
    if (siblings)
        EXPECT(act('i', (int)opened) != (long)file, "their parent has it, too");
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int other = (int)MUST(open(subject_path("shared"), O_RDWR));
    MUST(fcntl(other, F_OFD_GETLK, &lock));
    EXPECT(lock.l_type == F_WRLCK && lock.l_len == 10, "the record lock is gone");
    EXPECT(lock.l_pid == two.pid, "the record lock is that of %d, not of %d", (int)lock.l_pid, (int)two.pid);
    close(other);
    EXPECT(ask(&one, 'f', (int)opened) == FD_CLOEXEC, "close-on-exec is lost");
    EXPECT(ask(&one, 'F', (int)opened) == 0 && ask(&two, 'f', (int)opened) == 0, "a flag is not shared");
    EXPECT(ask(&one, 'd', (int)opened) == 200 && ask(&two, 'i', 200) == (long)file, "a new number is not shared");
    EXPECT(ask(&two, 'c', (int)opened) == 0 && ask(&one, 'i', (int)opened) == -EBADF, "closing is not shared");
}

static void check_folders(void)
{
    ino_t here = inode_of(subject_path("folder"));
    EXPECT(ask(&one, '.', 0) == (long)here && ask(&two, '.', 0) == (long)here, "they are in another folder");
    EXPECT(ask(&one, 'u', 027) == 0123 && ask(&two, 'u', 022) == 027, "the umask is not shared");
    EXPECT(ask(&two, '/', 0) == 0 && ask(&one, '.', 0) == (long)inode_of("/"), "the working folder is not shared");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    const char *what = argc > 2 ? argv[2] : "both";
    flags = strcmp(what, "folders") == 0 ? CLONE_FS : CLONE_FILES;
    flags |= strcmp(what, "descriptors") == 0 ? 0 : CLONE_FS;
    siblings = strcmp(what, "siblings") == 0;
    chain = strcmp(what, "chain") == 0;
    for (int i = 0; i < 2; i++) {
        MUST(pipe(to[i]));
        MUST(pipe(from[i]));
    }
    MUST(mkdir(subject_path("folder"), 0700));
    pid_t first = start(siblings ? 0 : flags);
    if (first == 0) {
        pid_t second = siblings ? start(flags | CLONE_PARENT) : chain ? start(flags) : -1;
        if (second == 0)
            serve(1);
        long told = second;
        MUST(write(from[0][1], &told, sizeof told));
        serve(0);
    }
    long second;
    EXPECT(read(from[0][0], &second, sizeof second) == sizeof second, "no first answer");
    struct actor others[2] = {{first, to[0][1], from[0][0]}, {(pid_t)second, to[1][1], from[1][0]}};
    one = siblings ? others[0] : (struct actor){0};
    two = siblings || chain ? others[1] : others[0];
    if (flags & CLONE_FILES) {
        opened = ask(&two, 'o', 0);
        EXPECT(opened > 0 && ask(&two, 'l', (int)opened) == 0, "opening and locking: %ld", opened);
    }
    if (flags & CLONE_FS) {
        act('u', 0111);
        EXPECT(ask(&one, 'u', 0123) >= 0 && ask(&two, 'h', 0) == 0, "cannot go there");
    }
    subject_wait(spoil);
    if (flags & CLONE_FS)
        check_folders();
    if (flags & CLONE_FILES)
        check_descriptors();
    if (siblings)
        EXPECT(act('u', 0) == 0111 && act('.', 0) != (long)inode_of("/"), "their parent shares folders, too");
    for (int i = siblings || chain ? 1 : 0; i >= 0; i--) {
        int order[2] = {'q', 0}, status = 0;
        MUST(write(others[i].ask, order, sizeof order));
        if (i == 1 && chain)
            continue;
        MUST(waitpid(others[i].pid, &status, 0));
        EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 7, "the status of %d is %#x", (int)others[i].pid, status);
    }
    subject_pass();
}
