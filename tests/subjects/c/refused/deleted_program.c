/* A program whose file was removed while it ran: refused by name. */
#include "../subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (argc == 2) { /* a copy of ourselves runs, and is removed */
        char command[PATH_MAX + 100];
        snprintf(command, sizeof command, "cp /proc/%d/exe '%s'", (int)getpid(), subject_path("copy"));
        EXPECT(system(command) == 0, "copying the program");
        execl(subject_path("copy"), subject_path("copy"), argv[1], "copied", NULL);
    }
    MUST(unlink(subject_path("copy")));
    subject_wait(NULL);
    subject_pass();
}
