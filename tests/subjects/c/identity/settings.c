/* Further settings of a process: core dump filter, time stamp counter, speculation, machine checks, memory-deny-write. */
#include "../subject.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_GET_MDWE 66
#endif

static void filter(char *text, const char *wanted)
{
    int fd = (int)MUST(open("/proc/self/coredump_filter", wanted ? O_RDWR : O_RDONLY));
    if (wanted)
        MUST(write(fd, wanted, strlen(wanted)));
    ssize_t size = MUST(pread(fd, text, 31, 0));
    text[size] = 0;
    close(fd);
}

static void spoil(void)
{
    char text[32];
    filter(text, "0x7f");
    prctl(PR_SET_TSC, PR_TSC_ENABLE, 0, 0, 0);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char before[32], after[32];
    int tsc = 0;
    filter(before, "0x11");
    MUST(prctl(PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0));
    MUST(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0));
    bool speculation = prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, PR_SPEC_DISABLE, 0, 0) == 0;
    bool denied = argc > 2 && prctl(PR_SET_MDWE, 1, 0, 0, 0) == 0; /* nobody can take that back */
    if (argc > 2 && !denied)
        subject_skip("PR_SET_MDWE (OS kernel 6.3)");
    subject_wait(spoil);
    filter(after, NULL);
    EXPECT(strcmp(before, after) == 0, "the core dump filter is %s", after);
    MUST(prctl(PR_GET_TSC, &tsc, 0, 0, 0));
    EXPECT(tsc == PR_TSC_SIGSEGV, "the time stamp counter may be read");
    EXPECT(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0) == PR_MCE_KILL_EARLY, "PR_MCE_KILL is %d", prctl(PR_MCE_KILL_GET, 0, 0, 0, 0));
    if (speculation)
        EXPECT(prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, 0, 0, 0) & PR_SPEC_DISABLE, "speculation is on again");
    if (denied) {
        EXPECT(prctl(PR_GET_MDWE, 0, 0, 0, 0) == 1, "PR_SET_MDWE is lost");
        void *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        EXPECT(area == MAP_FAILED, "memory can be both written to and run");
    }
    subject_pass();
}
