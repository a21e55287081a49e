/* What the program was started with: argv, environment, auxiliary vector, executable, as the program and ps see it. */
#include "../subject.h"
#include <sys/auxv.h>

struct file {
    const char *name;
    char content[16384];
    ssize_t size;
};
static struct file before[] = {{.name = "cmdline"}, {.name = "environ"}, {.name = "auxv"}}, after[] = {
    {.name = "cmdline"}, {.name = "environ"}, {.name = "auxv"}};

static void take(struct file *files)
{
    for (int i = 0; i < 3; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/%s", files[i].name);
        int fd = (int)MUST(open(path, O_RDONLY));
        files[i].size = MUST(read(fd, files[i].content, sizeof files[i].content));
        close(fd);
    }
}

/* start_code … env_end of /proc/self/stat: fields 26-28 and 45-51 */
static void addresses(unsigned long *seen)
{
    char line[4096];
    FILE *stat = fopen("/proc/self/stat", "r");
    EXPECT(fgets(line, sizeof line, stat), "no /proc/self/stat");
    fclose(stat);
    char *at = strrchr(line, ')') + 2;
    for (int field = 3; at; field++, at = strchr(at, ' ') ? strchr(at, ' ') + 1 : NULL)
        if ((field >= 26 && field <= 28) || (field >= 45 && field <= 51))
            *seen++ = strtoul(at, NULL, 10);
}

int main(int argc, char **argv, char **envp)
{
    subject_begin(argc, argv);
    argv[1][0] = '_'; /* a program may change what ps shows */
    unsigned long places_before[10], places_after[10];
    char exe_before[PATH_MAX] = "", exe_after[PATH_MAX] = "";
    const char *first = envp[0] ? envp[0] : "";
    char *first_copy = strdup(first);
    take(before);
    addresses(places_before);
    MUST(readlink("/proc/self/exe", exe_before, sizeof exe_before - 1));
    unsigned long entry = getauxval(AT_ENTRY);
    subject_wait(NULL);
    take(after);
    addresses(places_after);
    for (int i = 0; i < 3; i++)
        EXPECT(before[i].size == after[i].size && !memcmp(before[i].content, after[i].content, (size_t)before[i].size),
               "/proc/self/%s differs", before[i].name);
    for (int i = 0; i < 10; i++)
        EXPECT(places_before[i] == places_after[i], "address %d in /proc/self/stat is %#lx instead of %#lx", i,
               places_after[i], places_before[i]);
    MUST(readlink("/proc/self/exe", exe_after, sizeof exe_after - 1));
    EXPECT(strcmp(exe_before, exe_after) == 0, "the executable is %s", exe_after);
    EXPECT(getauxval(AT_ENTRY) == entry && strcmp(first, first_copy) == 0, "the vectors changed");
    subject_pass();
}
