/* A program whose file was removed while it ran, or that was never a file (memfd_create): refused by name. */
#include "../subject.h"
#include <sys/mman.h>
#include <sys/sendfile.h>

static void run_from_memory(char *base)
{
    int own = (int)MUST(open("/proc/self/exe", O_RDONLY)), copy = (int)MUST(memfd_create("nbcr-program", MFD_CLOEXEC));
    struct stat size;
    MUST(fstat(own, &size));
    EXPECT(sendfile(copy, own, NULL, (size_t)size.st_size) == size.st_size, "copying the program");
    close(own);
    fexecve(copy, (char *[]){"program", base, "there", NULL}, environ);
    subject_fail("fexecve: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    const char *how = argc > 2 ? argv[2] : "";
    if (!strcmp(how, "memory"))
        run_from_memory(argv[1]);
    if (!*how) { /* a copy of ourselves runs, and is removed */
        char command[PATH_MAX + 100];
        snprintf(command, sizeof command, "cp /proc/%d/exe '%s'", (int)getpid(), subject_path("copy"));
        EXPECT(system(command) == 0, "copying the program");
        execl(subject_path("copy"), subject_path("copy"), argv[1], "copied", NULL);
    }
    if (!strcmp(how, "copied"))
        MUST(unlink(subject_path("copy")));
    subject_wait(NULL);
    subject_pass();
}
