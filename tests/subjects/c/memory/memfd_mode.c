/* The mode of a memfd that is mapped, too. */
#include "../subject.h"
#include <sys/mman.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = (int)MUST(memfd_create("mode", 0));
    MUST(ftruncate(fd, 4096));
    char *mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    EXPECT(mapped != MAP_FAILED, "no mapping");
    MUST(fchmod(fd, 0640));
    subject_wait(NULL);
    struct stat now;
    MUST(fstat(fd, &now));
    EXPECT((now.st_mode & 07777) == 0640, "the mode is %o", now.st_mode);
    MUST(pwrite(fd, "x", 1, 0));
    EXPECT(mapped[0] == 'x', "file and mapping are two");
    subject_pass();
}
