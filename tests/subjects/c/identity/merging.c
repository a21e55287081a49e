/* Samepage merging for a whole process (PR_SET_MEMORY_MERGE), and no huge pages for it. */
#include "../subject.h"
#include <sys/prctl.h>

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#define PR_GET_MEMORY_MERGE 68
#endif

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0))
        subject_skip("PR_SET_MEMORY_MERGE (CAP_SYS_RESOURCE)");
    MUST(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
    static char area[40000];
    subject_fill(area, sizeof area, 1);
    subject_wait(NULL);
    EXPECT(prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0) == 1, "PR_SET_MEMORY_MERGE is lost");
    EXPECT(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1, "PR_SET_THP_DISABLE is lost");
    EXPECT_FILLED(area, sizeof area, 1, "the memory");
    subject_pass();
}
