/*
 * Descriptors of its own files in /proc show the restored process, and one that is read half goes on at the same line.
 * Through one of /proc itself the process finds itself under its number.
 */
#include "../subject.h"
#include <sys/mman.h>

static char maps_text[65536];

static size_t read_all(int fd, char *text, size_t room)
{
    size_t size = 0;
    for (ssize_t part; size < room && (part = MUST(read(fd, text + size, room - size))) > 0;)
        size += (size_t)part;
    return size;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int status = (int)MUST(open("/proc/self/status", O_RDONLY)), maps = (int)MUST(open("/proc/self/maps", O_RDONLY));
    int folder = (int)MUST(open("/proc/self/fd", O_RDONLY | O_DIRECTORY));
    int every = (int)MUST(open("/proc", O_RDONLY | O_DIRECTORY));
    char text[65536], own[40];
    MUST(read(status, text, 10));
    int whole = (int)MUST(open("/proc/self/maps", O_RDONLY)), begun = (int)MUST(open("/proc/self/maps", O_RDONLY));
    MUST(mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    size_t first = (size_t)MUST(read(begun, text, 1000));
    subject_wait(NULL);
    size_t rest = first + read_all(begun, text + first, sizeof text - first);
    size_t length = read_all(whole, maps_text, sizeof maps_text);
    EXPECT(rest == length && memcmp(text, maps_text, length) == 0, "maps goes on elsewhere: %.200s", text + first);
    ssize_t size = MUST(pread(status, text, sizeof text - 1, 0));
    text[size] = 0;
    char *line = strstr(text, "\nPid:");
    EXPECT(line && atoi(line + 5) == atoi(subject_proc("status", "Pid:")), "status is of process %d",
           line ? atoi(line + 5) : 0);
    EXPECT(lseek(status, 0, SEEK_CUR) == 10, "the offset is %ld", (long)lseek(status, 0, SEEK_CUR));
    EXPECT(pread(maps, text, 100, 0) == 100, "maps cannot be read");
    char link[PATH_MAX];
    EXPECT(readlinkat(folder, "0", link, sizeof link) > 0, "the folder of descriptors cannot be used");
    snprintf(own, sizeof own, "%d/cmdline", (int)getpid());
    int named = openat(every, own, O_RDONLY);
    EXPECT(named >= 0, "/proc does not show process %d: %s", (int)getpid(), strerror(errno));
    size = MUST(read(named, text, sizeof text - 1));
    text[size] = 0;
    EXPECT(strcmp(text, argv[0]) == 0, "process %d in /proc is '%.100s'", (int)getpid(), text);
    subject_pass();
}
