/* Children that are other programs: a shell with a pipeline, fed and read through pipes. */
#include "tree.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int in[2], out[2];
    MUST(pipe2(in, O_CLOEXEC));
    MUST(pipe2(out, O_CLOEXEC));
    pid_t shell = (pid_t)MUST(fork());
    if (shell == 0) {
        dup2(in[0], 0), dup2(out[1], 1);
        execl("/bin/sh", "sh", "-c", "x=kept; read line; cat; echo \"$line $x\"; exit 9", (char *)NULL);
        _exit(127);
    }
    close(in[0]), close(out[1]);
    MUST(write(in[1], "first\n", 6));
    MUST(write(in[1], "copied", 6));
    char text[64] = "";
    EXPECT(read(out[0], text, 64) == 6, "setting up");
    subject_wait(NULL);
    MUST(write(in[1], "again", 5));
    EXPECT(read(out[0], text, 64) == 5 && !memcmp(text, "again", 5), "cat does not copy");
    MUST(close(in[1]));
    memset(text, 0, sizeof text);
    EXPECT(read(out[0], text, 64) == 11 && !strcmp(text, "first kept\n"), "the shell says '%s'", text);
    int status;
    EXPECT(waitpid(shell, &status, 0) == shell && WEXITSTATUS(status) == 9, "the shell's status is %#x", status);
    subject_pass();
}
