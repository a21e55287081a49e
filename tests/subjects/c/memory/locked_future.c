/* mlockall with MCL_FUTURE: what is mapped afterwards is locked too. */
#include "../subject.h"
#include <sys/mman.h>
#include <sys/resource.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct rlimit limit;
    MUST(getrlimit(RLIMIT_MEMLOCK, &limit));
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_MEMLOCK, &limit);
    if (mlockall(MCL_CURRENT | MCL_FUTURE))
        subject_skip("RLIMIT_MEMLOCK of a whole small program");
    long before = atol(subject_proc("status", "VmLck:"));
    subject_wait(NULL);
    long now = atol(subject_proc("status", "VmLck:"));
    EXPECT(now >= before, "%ld KiB are locked instead of %ld", now, before);
    (void)MUST_MAP(mmap(NULL, 256 << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    EXPECT(atol(subject_proc("status", "VmLck:")) >= now + 256, "a new mapping is not locked");
    subject_pass();
}
