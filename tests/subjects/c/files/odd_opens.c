/* Descriptors that cannot simply be opened again, and numbers up to the limit. */
#include "../subject.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int forbidden = (int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    MUST(write(forbidden, "abc", 3));
    MUST(fchmod(forbidden, 0));
    pid_t child = (pid_t)MUST(fork());
    if (child == 0)
        pause(), _exit(1);
    char path[64], text[10];
    snprintf(path, sizeof path, "/proc/%d/status", child);
    int dead = (int)MUST(open(path, O_RDONLY | O_CLOEXEC));
    kill(child, 9);
    MUST(waitpid(child, NULL, 0));
    int namespace = (int)MUST(open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
    int memory = (int)MUST(memfd_create("sealed", MFD_ALLOW_SEALING | MFD_CLOEXEC));
    snprintf(path, sizeof path, "/proc/self/fd/%d", memory);
    int reading = (int)MUST(open(path, O_RDONLY | O_CLOEXEC));
    MUST(fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE));
    MUST(close(memory));
    struct rlimit limit;
    MUST(getrlimit(RLIMIT_NOFILE, &limit));
    limit.rlim_cur = limit.rlim_max;
    MUST(setrlimit(RLIMIT_NOFILE, &limit));
    int last = limit.rlim_max > 1000000 ? 1000000 : (int)limit.rlim_max - 1;
    MUST(dup3(forbidden, last, O_CLOEXEC));
    subject_wait(NULL);

    EXPECT(pwrite(forbidden, "X", 1, 0) == 1 && pread(forbidden, text, 3, 0) == 3, "the file is closed");
    struct stat facts;
    MUST(fstat(forbidden, &facts));
    EXPECT((facts.st_mode & 0777) == 0, "its permissions are %o", facts.st_mode & 0777);
    EXPECT(read(dead, text, 1) == -1 && errno == ESRCH, "the dead process answers");
    MUST(fstat(namespace, &facts));
    EXPECT(fcntl(reading, F_GET_SEALS) == F_SEAL_WRITE, "its seals are %d", fcntl(reading, F_GET_SEALS));
    MUST(lseek(last, 2, SEEK_SET));
    EXPECT(lseek(forbidden, 0, SEEK_CUR) == 2, "descriptor %d is another one", last);
    EXPECT(fcntl(last, F_GETFD) == FD_CLOEXEC, "it is not close-on-exec");
    subject_pass();
}
