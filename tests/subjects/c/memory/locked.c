/* Locked memory: mlock and lock-on-fault, counted as before. */
#include "../subject.h"
#include <sys/mman.h>

static char *area;
static void spoil(void) { munlock(area, 65536); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    area = MUST_MAP(mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    subject_fill(area, 65536, 1);
    if (mlock(area, 65536))
        subject_skip("RLIMIT_MEMLOCK of 64 KiB");
    MUST(mlock2(area + 131072, 65536, MLOCK_ONFAULT));
    char before[100];
    snprintf(before, sizeof before, "%s", subject_proc("status", "VmLck:"));
    subject_wait(spoil);
    EXPECT(strcmp(before, subject_proc("status", "VmLck:")) == 0, "locked are %s instead of %s",
           subject_proc("status", "VmLck:"), before);
    EXPECT_FILLED(area, 65536, 1, "the locked memory");
    subject_pass();
}
