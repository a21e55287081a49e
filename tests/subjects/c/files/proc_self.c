/* Descriptors of its own files in /proc show the restored process. */
#include "../subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int status = (int)MUST(open("/proc/self/status", O_RDONLY)), maps = (int)MUST(open("/proc/self/maps", O_RDONLY));
    int folder = (int)MUST(open("/proc/self/fd", O_RDONLY | O_DIRECTORY));
    char text[65536];
    MUST(read(status, text, 10));
    subject_wait(NULL);
    ssize_t size = MUST(pread(status, text, sizeof text - 1, 0));
    text[size] = 0;
    char *line = strstr(text, "\nPid:");
    EXPECT(line && atoi(line + 5) == atoi(subject_proc("status", "Pid:")), "status is of process %d",
           line ? atoi(line + 5) : 0);
    EXPECT(lseek(status, 0, SEEK_CUR) == 10, "the offset is %ld", (long)lseek(status, 0, SEEK_CUR));
    EXPECT(pread(maps, text, 100, 0) == 100, "maps cannot be read");
    char link[PATH_MAX];
    EXPECT(readlinkat(folder, "0", link, sizeof link) > 0, "the folder of descriptors cannot be used");
    subject_pass();
}
