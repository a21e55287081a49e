/* What a process has registered for with membarrier(2): without it the expedited commands are refused. */
#include "../subject.h"
#include <linux/membarrier.h>
#include <sys/syscall.h>

static const int registrations[] = {
    MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED,
    MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ,
};

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    long known = MUST(syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0));
    for (size_t i = 0; i < sizeof registrations / sizeof *registrations; i++)
        if (known & registrations[i])
            MUST(syscall(SYS_membarrier, registrations[i], 0, 0));
    subject_wait(NULL);
    for (size_t i = 0; i < sizeof registrations / sizeof *registrations; i++)
        if (known & registrations[i]) /* the command itself is the bit before */
            EXPECT(syscall(SYS_membarrier, registrations[i] >> 1, 0, 0) == 0, "command %#x: %s", registrations[i] >> 1,
                   strerror(errno));
    subject_pass();
}
