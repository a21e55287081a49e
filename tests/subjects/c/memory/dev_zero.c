/* /dev/zero mapped privately and shared, shared with holes and with protections that differ. */
#include "../subject.h"
#include <sys/mman.h>

#define PAGE 4096

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = (int)MUST(open("/dev/zero", O_RDWR));
    char *private = MUST_MAP(mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    char *shared = MUST_MAP(mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    subject_fill(private + PAGE, PAGE, 1);
    subject_fill(shared, 8 * PAGE, 2);
    MUST(mprotect(shared + PAGE, PAGE, PROT_READ));
    MUST(mprotect(shared + 2 * PAGE, PAGE, PROT_NONE));
    MUST(munmap(shared + 5 * PAGE, PAGE));
    subject_wait(NULL);
    EXPECT_FILLED(private + PAGE, PAGE, 1, "the private mapping");
    EXPECT(private[0] == 0 && private[7 * PAGE] == 0, "untouched pages are not zero");
    EXPECT_FILLED(shared, 2 * PAGE, 2, "the shared mapping");
    MUST(mprotect(shared + 2 * PAGE, PAGE, PROT_READ));
    EXPECT_FILLED(shared + 2 * PAGE, PAGE, 2 + 2 * PAGE / 8, "the page without rights");
    EXPECT_FILLED(shared + 6 * PAGE, 2 * PAGE, 2 + 6 * PAGE / 8, "behind the hole");
    unsigned char there;
    EXPECT(mincore(shared + 5 * PAGE, PAGE, &there) == -1, "the hole is mapped");
    pid_t child = (pid_t)MUST(fork());
    if (child == 0) {
        shared[9] = 'z';
        _exit(0);
    }
    while (((volatile char *)shared)[9] != 'z')
        subject_tick();
    subject_pass();
}
