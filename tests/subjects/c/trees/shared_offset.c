/* Parent and child share open file descriptions by fork, not those opened afterwards. */
#include "tree.h"

static int shared;

static int work(int told, void *argument)
{
    (void)argument;
    int own = (int)MUST(open(subject_path("file"), O_RDWR));
    child_wait(told);
    MUST(lseek(shared, 5, SEEK_SET));
    MUST(lseek(own, 9, SEEK_SET));
    return 0;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    shared = (int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_TRUNC, 0600));
    MUST(write(shared, "0123456789", 10));
    struct child child = child_start(work, NULL);
    int own = (int)MUST(open(subject_path("file"), O_RDWR));
    MUST(lseek(own, 2, SEEK_SET));
    subject_wait(NULL);
    child_tell(child);
    child_expect_exit(child, 0, "the child");
    EXPECT(lseek(shared, 0, SEEK_CUR) == 5, "the offset is not shared: %ld", (long)lseek(shared, 0, SEEK_CUR));
    EXPECT(lseek(own, 0, SEEK_CUR) == 2, "the parent's own offset is %ld", (long)lseek(own, 0, SEEK_CUR));
    subject_pass();
}
