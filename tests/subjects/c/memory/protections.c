/* Pages with every kind of protection; the content of unreadable ones is there when they are opened. */
#include "../subject.h"
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#define PAGE 4096
static const int kinds[] = {PROT_NONE,
                            PROT_READ,
                            PROT_READ | PROT_WRITE,
                            PROT_READ | PROT_EXEC,
                            PROT_READ | PROT_WRITE | PROT_EXEC,
                            PROT_NONE,
                            PROT_READ};
#define COUNT ((int)(sizeof kinds / sizeof *kinds))
static sigjmp_buf back;
static char *area;

static void fault(int number) { siglongjmp(back, number); }

static bool allowed(volatile char *at, bool writing)
{
    if (sigsetjmp(back, 1))
        return false;
    if (writing)
        *at = *at;
    else
        (void)*at;
    return true;
}

static void spoil(void) { mprotect(area, PAGE * COUNT, PROT_READ | PROT_WRITE); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sigaction act = {.sa_handler = fault};
    MUST(sigaction(SIGSEGV, &act, NULL));
    area = MUST_MAP(mmap(NULL, PAGE * COUNT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (int i = 0; i < COUNT; i++) {
        subject_fill(area + i * PAGE, PAGE, (uint64_t)i);
        MUST(mprotect(area + i * PAGE, PAGE, kinds[i]));
    }
    subject_wait(spoil);
    for (int i = 0; i < COUNT; i++) {
        bool readable = allowed(area + i * PAGE, false), writable = readable && allowed(area + i * PAGE, true);
        EXPECT(readable == !!(kinds[i] & PROT_READ), "page %d is %sreadable", i, readable ? "" : "not ");
        EXPECT(writable == !!(kinds[i] & PROT_WRITE), "page %d is %swritable", i, writable ? "" : "not ");
        MUST(mprotect(area + i * PAGE, PAGE, PROT_READ));
        EXPECT_FILLED(area + i * PAGE, PAGE, (uint64_t)i, "a page");
    }
    subject_pass();
}
