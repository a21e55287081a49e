/* A program in a memfd: a file that somebody has open for writing could not be executed. */
#include "../subject.h"
#include <sys/mman.h>
#include <sys/wait.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static const char script[] = "#!/bin/sh\nexit 42\n";
    int fd = (int)MUST(memfd_create("script", 0)); /* the interpreter opens it by its number */
    MUST(write(fd, script, sizeof script - 1));
    subject_wait(NULL);
    pid_t child = (pid_t)MUST(fork());
    if (child == 0) {
        char *const words[] = {"script", NULL}, *const environment[] = {NULL};
        fexecve(fd, words, environment);
        _exit(errno);
    }
    int status;
    MUST(waitpid(child, &status, 0));
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 42, "status %#x: %s", status, strerror(WEXITSTATUS(status)));
    subject_pass();
}
