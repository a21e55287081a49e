/* Record locks of the process, seen by a child: ranges and kinds. */
#include "../subject.h"
#include <sys/wait.h>

static int fd;

static void spoil(void)
{
    struct flock all = {.l_type = F_UNLCK};
    fcntl(fd, F_SETLK, &all);
}

static int seen_by_child(off_t at, short wanted)
{
    pid_t child = (pid_t)MUST(fork());
    if (child == 0) {
        struct flock ask = {.l_type = wanted, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
        if (fcntl(fd, F_GETLK, &ask))
            _exit(99);
        _exit(ask.l_type == F_UNLCK ? 0 : ask.l_pid != getppid() ? 98 : ask.l_type == F_RDLCK ? 1 : 2);
    }
    int status;
    MUST(waitpid(child, &status, 0));
    return WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    fd = (int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_TRUNC, 0600));
    struct flock reading = {.l_type = F_RDLCK, .l_start = 100, .l_len = 50};
    struct flock writing = {.l_type = F_WRLCK, .l_start = 1000, .l_len = 0};
    MUST(fcntl(fd, F_SETLK, &reading));
    MUST(fcntl(fd, F_SETLK, &writing));
    subject_wait(spoil);
    EXPECT(seen_by_child(120, F_WRLCK) == 1, "the read lock: %d", seen_by_child(120, F_WRLCK));
    EXPECT(seen_by_child(120, F_RDLCK) == 0, "the read lock keeps readers out");
    EXPECT(seen_by_child(150, F_WRLCK) == 0, "the read lock is too long");
    EXPECT(seen_by_child(5000, F_RDLCK) == 2, "the write lock: %d", seen_by_child(5000, F_RDLCK));
    subject_pass();
}
