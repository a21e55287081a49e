/* Threads blocked on file locks: flock and a lock of an open file description, each held by another description. */
#include "blocked.h"
#include <sys/file.h>

static int holder, waiter, ranges, ranges_waiter;

static struct flock range(short type)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = 10, .l_len = 5};
}
static long by_flock(void) { return flock(waiter, LOCK_EX); }
static void wake_flock(void) { MUST(flock(holder, LOCK_UN)); }
static long by_ofd(void)
{
    struct flock wanted = range(F_WRLCK);
    return fcntl(ranges_waiter, F_OFD_SETLKW, &wanted);
}
static void wake_ofd(void)
{
    struct flock free = range(F_UNLCK);
    MUST(fcntl(ranges, F_OFD_SETLK, &free));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    holder = (int)MUST(open(subject_path("one"), O_RDWR | O_CREAT | O_EXCL, 0600));
    waiter = (int)MUST(open(subject_path("one"), O_RDWR));
    ranges = (int)MUST(open(subject_path("two"), O_RDWR | O_CREAT | O_EXCL, 0600));
    ranges_waiter = (int)MUST(open(subject_path("two"), O_RDWR));
    MUST(flock(holder, LOCK_SH));
    struct flock wanted = range(F_RDLCK);
    MUST(fcntl(ranges, F_OFD_SETLK, &wanted));
    struct blocked all[] = {WAITS("flock", flock, 0), WAITS("F_OFD_SETLKW", ofd, 0)};
    BLOCKED_THROUGH(all);
    EXPECT(flock(holder, LOCK_SH | LOCK_NB) == -1 && errno == EWOULDBLOCK, "the lock was not got");
    subject_pass();
}
