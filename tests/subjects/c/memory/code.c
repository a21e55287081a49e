/* Machine code made at run time is callable, and can be made again. */
#include "../subject.h"
#include <sys/mman.h>

typedef int function(void);

static void emit(unsigned char *at, int value)
{
    at[0] = 0xb8; /* mov eax, value */
    memcpy(at + 1, &value, 4);
    at[5] = 0xc3; /* ret */
}

static unsigned char *open_page;
static void spoil(void) { emit(open_page, 0); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    open_page = MUST_MAP(mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    unsigned char *closed = MUST_MAP(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    emit(open_page, 4711);
    emit(closed, 815);
    MUST(mprotect(closed, 4096, PROT_EXEC | PROT_READ));
    subject_wait(spoil);
    EXPECT(((function *)(uintptr_t)open_page)() == 4711, "the writable code returns something else");
    EXPECT(((function *)(uintptr_t)closed)() == 815, "the closed code returns something else");
    emit(open_page, 12);
    EXPECT(((function *)(uintptr_t)open_page)() == 12, "new code is not executed");
    subject_pass();
}
