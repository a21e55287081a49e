/*
 * mlockall with MCL_FUTURE: what is mapped afterwards is locked too. argv[2] "full": as much is locked as RLIMIT_MEMLOCK
 * allows, so that no more can be mapped. That counts for root only without CAP_IPC_LOCK. "alone": nothing is locked yet;
 * "fault": nor will be what nobody touches.
 */
#include "../subject.h"
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define MOST (16 << 20)

static bool map(size_t size)
{
    return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
}

static void let_the_limit_count(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct held[2];
    MUST(syscall(SYS_capget, &header, held));
    held[0].effective &= ~(1u << CAP_IPC_LOCK);
    MUST(syscall(SYS_capset, &header, held));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct rlimit limit;
    MUST(getrlimit(RLIMIT_MEMLOCK, &limit));
    limit.rlim_cur = argc > 2 && strcmp(argv[2], "full") == 0 && limit.rlim_max > MOST ? MOST : limit.rlim_max;
    const char *variant = argc > 2 ? argv[2] : "";
    bool full = strcmp(variant, "full") == 0, on_fault = strcmp(variant, "fault") == 0;
    int what = full || !*variant ? MCL_CURRENT | MCL_FUTURE : on_fault ? MCL_FUTURE | MCL_ONFAULT : MCL_FUTURE;
    if (full)
        let_the_limit_count();
    setrlimit(RLIMIT_MEMLOCK, &limit);
    if (mlockall(what))
        subject_skip("RLIMIT_MEMLOCK of a whole small program");
    if (full) {
        EXPECT(!map(limit.rlim_cur), "the limit of locked memory does not count");
        for (size_t size = 1 << 20; size >= 4096; size /= 2)
            while (map(size))
                ;
    }
    long before = full || !*variant ? atol(subject_proc("status", "VmLck:")) : 0; /* reading that takes memory */
    subject_wait(NULL);
    long now = atol(subject_proc("status", "VmLck:"));
    EXPECT(now >= before, "%ld KiB are locked instead of %ld", now, before);
    if (full) {
        EXPECT(!map(4096) && errno == EAGAIN, "a new mapping is not counted as locked");
        subject_pass();
    }
    char *more = MUST_MAP(mmap(NULL, 256 << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    EXPECT(atol(subject_proc("status", "VmLck:")) >= now + 256, "a new mapping is not locked");
    unsigned char there = 0;
    MUST(mincore(more, 4096, &there));
    EXPECT((there & 1) == !on_fault, "a page of it is %sthere", there & 1 ? "" : "not ");
    subject_pass();
}
