/* A terabyte reserved without access, as runtimes do who open parts of it when they need them: only these cost memory. */
#include "../subject.h"
#include <sys/mman.h>

enum { TERABYTE = 40, PART = 1 << 20 };

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    size_t size = 1ul << TERABYTE;
    char *area = MUST_MAP(mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    char *part = area + size / 2, *hidden = area + size / 4;
    MUST(mprotect(part, PART, PROT_READ | PROT_WRITE));
    subject_fill(part, PART, 1);
    MUST(mprotect(hidden, PART, PROT_READ | PROT_WRITE));
    subject_fill(hidden, PART, 2);
    MUST(mprotect(hidden, PART, PROT_NONE));
    subject_wait(NULL);
    EXPECT_FILLED(part, PART, 1, "the open part");
    MUST(mprotect(hidden, PART, PROT_READ));
    EXPECT_FILLED(hidden, PART, 2, "the part that was closed again");
    MUST(mprotect(area + PART, PART, PROT_READ | PROT_WRITE));
    area[PART] = 1;
    EXPECT(area[2 * PART - 1] == 0, "a part opened afterwards is not empty");
    MUST(munmap(area, size));
    subject_pass();
}
