/* Locks on what is no regular file: a FIFO, a folder, a memfd. */
#include "../subject.h"
#include <sys/file.h>
#include <sys/mman.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static const char *names[] = {"a FIFO", "a folder", "a memfd"};
    const char *fifo = subject_path("fifo"), *folder = subject_path("folder");
    MUST(mkfifo(fifo, 0600));
    MUST(mkdir(folder, 0700));
    int fds[] = {(int)MUST(open(fifo, O_RDWR)), (int)MUST(open(folder, O_RDONLY | O_DIRECTORY)),
                 (int)MUST(memfd_create("locked", 0))};
    for (int i = 0; i < 3; i++)
        MUST(flock(fds[i], LOCK_EX));
    struct flock part = {.l_type = F_WRLCK, .l_start = 3, .l_len = 4};
    MUST(fcntl(fds[0], F_SETLK, &part));
    struct flock bit = {.l_type = F_RDLCK, .l_start = 20, .l_len = 1};
    MUST(fcntl(fds[0], F_OFD_SETLK, &bit));
    subject_wait(NULL);
    for (int i = 0; i < 3; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fds[i]);
        int other = (int)MUST(open(path, i == 1 ? O_RDONLY : O_RDWR));
        EXPECT(flock(other, LOCK_SH | LOCK_NB) == -1 && errno == EWOULDBLOCK, "the lock on %s is gone", names[i]);
        struct flock found = {.l_type = F_WRLCK, .l_start = 5, .l_len = 1};
        MUST(i ? 0 : fcntl(other, F_OFD_GETLK, &found));
        EXPECT(i || (found.l_start == 3 && found.l_len == 4 && found.l_pid == getpid()), "no record lock on %s", names[i]);
        found = (struct flock){.l_type = F_WRLCK, .l_start = 15};
        MUST(i ? 0 : fcntl(other, F_OFD_GETLK, &found));
        EXPECT(i || (found.l_start == 20 && found.l_type == F_RDLCK), "no lock of the description on %s", names[i]);
        if (i)
            close(other); /* closing the FIFO would drop the record lock */
    }
    rmdir(folder);
    subject_pass();
}
