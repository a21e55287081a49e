/*
 * mlockall with MCL_FUTURE: what is mapped afterwards is locked too. argv[2] "full": as much is locked as RLIMIT_MEMLOCK
 * allows, so that no more can be mapped. That counts for root only without CAP_IPC_LOCK.
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
    limit.rlim_cur = argc > 2 && limit.rlim_max > MOST ? MOST : limit.rlim_max;
    if (argc > 2)
        let_the_limit_count();
    setrlimit(RLIMIT_MEMLOCK, &limit);
    if (mlockall(MCL_CURRENT | MCL_FUTURE))
        subject_skip("RLIMIT_MEMLOCK of a whole small program");
    if (argc > 2) {
        EXPECT(!map(limit.rlim_cur), "the limit of locked memory does not count");
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
