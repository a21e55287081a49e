/* Children of another program, by posix_spawn and by a shell with a pipeline; the shell's own children; a background job. */
#include "tree.h"
#include <spawn.h>

extern char **environ;

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int into[2], out[2];
    MUST(pipe2(into, O_CLOEXEC));
    MUST(pipe2(out, O_CLOEXEC));
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, into[0], 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    char *cat[] = {"cat", NULL}, *shell[] = {"sh", "-c", "sleep 1000 & read line; echo \"got $line\" | tr a-z A-Z; kill $!", NULL};
    pid_t pids[2];
    MUST0(posix_spawnp(&pids[0], "cat", &actions, NULL, cat, environ));
    int shell_in[2], shell_out[2];
    MUST(pipe2(shell_in, O_CLOEXEC));
    MUST(pipe2(shell_out, O_CLOEXEC));
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, shell_in[0], 0);
    posix_spawn_file_actions_adddup2(&actions, shell_out[1], 1);
    MUST0(posix_spawnp(&pids[1], "sh", &actions, NULL, shell, environ));
    MUST(write(into[1], "once ", 5));
    char text[64] = "";
    MUST(read(out[0], text, 5)); /* cat runs */
    char path[64];
    int grandchild = 0;
    while (grandchild == 0) { /* the shell's job runs */
        snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pids[1], (int)pids[1]);
        FILE *list = fopen(path, "r");
        if (list && fscanf(list, "%d", &grandchild) == 1) {
            char comm[32] = "";
            snprintf(path, sizeof path, "/proc/%d/comm", grandchild);
            FILE *name = fopen(path, "r");
            if (!name || !fgets(comm, sizeof comm, name) || strcmp(comm, "sleep\n") != 0)
                grandchild = 0;
            if (name)
                fclose(name);
        }
        if (list)
            fclose(list);
    }
    while (child_state(pids[0]) != 'S' || child_state(pids[1]) != 'S')
        subject_tick();
    subject_wait(NULL);
    MUST(write(into[1], "again", 5));
    EXPECT(read(out[0], text, sizeof text) == 5 && !memcmp(text, "again", 5), "cat says '%s'", text);
    MUST(close(into[1]));
    int status;
    EXPECT(waitpid(pids[0], &status, 0) == pids[0] && WIFEXITED(status) && WEXITSTATUS(status) == 0, "cat: status %#x", status);
    MUST(write(shell_in[1], "words\n", 6));
    memset(text, 0, sizeof text);
    EXPECT(read(shell_out[0], text, sizeof text) == 10 && !strcmp(text, "GOT WORDS\n"), "the shell says '%s'", text);
    EXPECT(waitpid(pids[1], &status, 0) == pids[1] && WIFEXITED(status) && WEXITSTATUS(status) == 0, "the shell: status %#x", status);
    subject_pass();
}
