/* The memory of a child that has ended since, open: it is there no more, and whoever has it open goes on. */
#include "../subject.h"
#include <sys/wait.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int go[2];
    MUST(pipe(go));
    pid_t child = (pid_t)MUST(fork());
    if (child == 0) {
        char byte;
        close(go[1]);
        _exit(read(go[0], &byte, 1) == 0 ? 7 : 8);
    }
    char path[64], text[16];
    snprintf(path, sizeof path, "/proc/%d/task/%d/mem", child, child);
    int memory = (int)MUST(open(path, O_RDONLY));
    close(go[1]);
    close(go[0]);
    siginfo_t told;
    MUST(waitid(P_PID, (id_t)child, &told, WEXITED | WNOWAIT));
    subject_wait(NULL);
    EXPECT(pread(memory, text, sizeof text, (off_t)(uintptr_t)path) <= 0, "the memory of a dead child can be read");
    int status;
    MUST(wait(&status));
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 7, "the child's status is %#x", status);
    subject_pass();
}
