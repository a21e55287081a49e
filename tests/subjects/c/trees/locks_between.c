/* A lock that parent and child share by fork (flock), and record locks that each holds alone. */
#include "tree.h"
#include <sys/file.h>

static int shared, records;

static int work(int told, void *argument)
{
    (void)argument;
    struct flock own = {.l_type = F_WRLCK, .l_start = 100, .l_len = 10};
    MUST(fcntl(records, F_SETLK, &own));
    child_wait(told);
    struct flock ask = {.l_type = F_WRLCK, .l_start = 0, .l_len = 10};
    MUST(fcntl(records, F_GETLK, &ask));
    EXPECT(ask.l_type == F_WRLCK && ask.l_pid == getppid(), "the parent's record lock: type %d of %d", ask.l_type,
           (int)ask.l_pid);
    MUST(flock(shared, LOCK_UN)); /* for both */
    child_wait(told);
    return 0;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    shared = (int)MUST(open(subject_path("shared"), O_RDWR | O_CREAT, 0600));
    records = (int)MUST(open(subject_path("records"), O_RDWR | O_CREAT, 0600));
    struct flock own = {.l_type = F_WRLCK, .l_start = 0, .l_len = 10}, ask = {.l_type = F_WRLCK, .l_start = 100, .l_len = 1};
    MUST(fcntl(records, F_SETLK, &own));
    MUST(flock(shared, LOCK_EX));
    struct child child = child_start(work, NULL);
    do {
        ask = (struct flock){.l_type = F_WRLCK, .l_start = 100, .l_len = 1};
        MUST(fcntl(records, F_GETLK, &ask));
        subject_tick();
    } while (ask.l_type == F_UNLCK);
    subject_wait(NULL);
    ask = (struct flock){.l_type = F_WRLCK, .l_start = 100, .l_len = 1};
    MUST(fcntl(records, F_GETLK, &ask));
    EXPECT(ask.l_type == F_WRLCK && ask.l_pid == child.pid, "the child's record lock: type %d", ask.l_type);
    int other = (int)MUST(open(subject_path("shared"), O_RDWR));
    EXPECT(flock(other, LOCK_EX | LOCK_NB) == -1, "the shared lock is gone");
    child_tell(child);
    for (int i = 0; i < 1000 && flock(other, LOCK_EX | LOCK_NB); i++)
        subject_tick();
    EXPECT(flock(other, LOCK_EX | LOCK_NB) == 0, "unlocking in the child does not unlock");
    child_tell(child);
    child_expect_exit(child, 0, "the child");
    subject_pass();
}
