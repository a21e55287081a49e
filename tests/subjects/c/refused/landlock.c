/* A Landlock ruleset in the making: refused by name. */
#include "../subject.h"
#include <sys/syscall.h>

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#endif

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    uint64_t handled = 1 << 2; /* LANDLOCK_ACCESS_FS_READ_FILE */
    if (syscall(SYS_landlock_create_ruleset, &handled, sizeof handled, 0) < 0)
        subject_skip("Landlock");
    subject_wait(NULL);
    subject_pass();
}
