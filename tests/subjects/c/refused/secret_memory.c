/* Secret memory (memfd_secret), which a program keeps from everybody: refused by name, as no image may hold it. */
#include "../subject.h"
#include <sys/mman.h>
#include <sys/syscall.h>

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = (int)syscall(SYS_memfd_secret, 0);
    if (fd < 0)
        subject_skip("memfd_secret");
    MUST(ftruncate(fd, 8192));
    char *area = MUST_MAP(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    subject_fill(area, 8192, 1);
    if (argc > 2) /* only mapped */
        MUST(close(fd));
    subject_wait(NULL);
    EXPECT_FILLED(area, 8192, 1, "the secret");
    subject_pass();
}
