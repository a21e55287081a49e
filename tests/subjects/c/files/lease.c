/* A lease on a file: refused by name. */
#include "../subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    close((int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_TRUNC, 0600)));
    int fd = (int)MUST(open(subject_path("file"), O_RDONLY));
    if (fcntl(fd, F_SETLEASE, F_RDLCK))
        subject_skip("a file system with leases");
    subject_wait(NULL);
    EXPECT(fcntl(fd, F_GETLEASE) == F_RDLCK, "the lease is gone");
    subject_pass();
}
