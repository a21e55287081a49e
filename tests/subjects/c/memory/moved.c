/* Mappings after mremap: moved, grown, shrunk, and a shared one shown a second time. */
#include "../subject.h"
#include <sys/mman.h>

#define PAGE 4096

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char *moved = MUST_MAP(mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    char *place = MUST_MAP(mmap(NULL, 64 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    char *shared = MUST_MAP(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    subject_fill(moved, 8 * PAGE, 1);
    subject_fill(shared, 4 * PAGE, 2);
    moved = MUST_MAP(mremap(moved, 8 * PAGE, 16 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place + 20 * PAGE));
    char *twin = MUST_MAP(mremap(shared, 0, 4 * PAGE, MREMAP_MAYMOVE));
    int fd = (int)MUST(open("/proc/self/exe", O_RDONLY));
    char *file = MUST_MAP(mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    file[3] = 'z';
    file = MUST_MAP(mremap(file, 2 * PAGE, PAGE, 0));
    subject_wait(NULL);
    EXPECT_FILLED(moved, 8 * PAGE, 1, "what was moved");
    EXPECT(moved[12 * PAGE] == 0, "what was added is not zero");
    moved[15 * PAGE] = 1;
    EXPECT_FILLED(twin, 4 * PAGE, 2, "the second view");
    shared[5] = 'y';
    EXPECT(twin[5] == 'y', "the two views show different objects");
    EXPECT(file[0] == 0x7f && file[3] == 'z', "the file's page");
    subject_pass();
}
