/* Descriptors made by dup share one offset and one set of flags; those made by open do not. */
#include "../subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int first = (int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_TRUNC, 0600));
    MUST(write(first, "0123456789", 10));
    int second = (int)MUST(dup(first)), third = (int)MUST(fcntl(first, F_DUPFD_CLOEXEC, 300));
    int other = (int)MUST(open(subject_path("file"), O_RDWR));
    MUST(lseek(first, 3, SEEK_SET));
    subject_wait(NULL);
    MUST(lseek(second, 7, SEEK_SET));
    EXPECT(lseek(first, 0, SEEK_CUR) == 7 && lseek(third, 0, SEEK_CUR) == 7, "the offset is not shared");
    EXPECT(lseek(other, 0, SEEK_CUR) == 0, "the offset of another open is shared");
    MUST(fcntl(third, F_SETFL, O_APPEND));
    EXPECT(fcntl(first, F_GETFL) & O_APPEND, "the flags are not shared");
    EXPECT(!(fcntl(other, F_GETFL) & O_APPEND), "the flags of another open are shared");
    EXPECT(fcntl(third, F_GETFD) == FD_CLOEXEC && fcntl(first, F_GETFD) == 0, "close-on-exec is shared");
    subject_pass();
}
