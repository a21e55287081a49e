/*
 * mlockall with MCL_FUTURE: what is mapped afterwards is locked too. argv[2] "full": as much is locked as RLIMIT_MEMLOCK
 * allows, so that no more can be mapped.
 */
#include "../subject.h"
#include <sys/mman.h>
#include <sys/resource.h>

static bool map(size_t size)
{
    return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct rlimit limit;
    MUST(getrlimit(RLIMIT_MEMLOCK, &limit));
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_MEMLOCK, &limit);
    if (mlockall(MCL_CURRENT | MCL_FUTURE))
        subject_skip("RLIMIT_MEMLOCK of a whole small program");
    if (argc > 2) {
        if (limit.rlim_cur > 64 << 20 || map(limit.rlim_cur))
            subject_skip("a limit of locked memory that counts for it");
        for (size_t size = 1 << 20; size >= 4096; size /= 2)
            while (map(size))
                ;
    }
    long before = atol(subject_proc("status", "VmLck:"));
    subject_wait(NULL);
    long now = atol(subject_proc("status", "VmLck:"));
    EXPECT(now >= before, "%ld KiB are locked instead of %ld", now, before);
    if (argc > 2) {
        EXPECT(!map(4096) && errno == EAGAIN, "a new mapping is not counted as locked");
        subject_pass();
    }
    (void)MUST_MAP(mmap(NULL, 256 << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    EXPECT(atol(subject_proc("status", "VmLck:")) >= now + 256, "a new mapping is not locked");
    subject_pass();
}
