/* A lock by flock, on a descriptor that dup made another of. */
#include "../subject.h"
#include <sys/file.h>

static int fd;
static void spoil(void) { flock(fd, LOCK_UN); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    fd = (int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_TRUNC, 0600));
    int twin = (int)MUST(dup(fd)), shared = (int)MUST(open(subject_path("shared"), O_RDWR | O_CREAT, 0600));
    MUST(flock(fd, LOCK_EX));
    MUST(flock(shared, LOCK_SH));
    subject_wait(spoil);
    int other = (int)MUST(open(subject_path("file"), O_RDWR));
    EXPECT(flock(other, LOCK_SH | LOCK_NB) == -1 && errno == EWOULDBLOCK, "the exclusive lock is gone");
    MUST(flock(twin, LOCK_UN));
    MUST(flock(other, LOCK_EX | LOCK_NB));
    other = (int)MUST(open(subject_path("shared"), O_RDWR));
    EXPECT(flock(other, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK, "the shared lock is gone");
    MUST(flock(other, LOCK_SH | LOCK_NB));
    subject_pass();
}
