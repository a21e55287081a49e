/* O_PATH descriptors of what is no file: a FIFO, a socket, a device; and of a folder in /proc and in /sys. */
#include "../subject.h"
#include <sys/socket.h>
#include <sys/un.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    snprintf(name.sun_path, sizeof name.sun_path, "%s", subject_path("sock"));
    int bound = (int)MUST(socket(AF_UNIX, SOCK_DGRAM, 0));
    MUST(bind(bound, (struct sockaddr *)&name, sizeof name));
    MUST(close(bound));
    MUST(mkfifo(subject_path("fifo"), 0600));
    const char *paths[] = {subject_path("fifo"), subject_path("sock"), "/dev/null", "/proc/sys", "/sys/devices"};
    static const mode_t types[] = {S_IFIFO, S_IFSOCK, S_IFCHR, S_IFDIR, S_IFDIR};
    int fds[5];
    for (int i = 0; i < 5; i++)
        fds[i] = (int)MUST(open(paths[i], O_PATH));
    int setting = (int)MUST(open("/proc/sys/fs/file-max", O_RDONLY)), attribute = open("/sys/devices/system/cpu/online", 0);
    subject_wait(NULL);
    for (int i = 0; i < 5; i++) {
        struct stat st;
        MUST(fstat(fds[i], &st));
        EXPECT((st.st_mode & S_IFMT) == types[i], "descriptor %d is of type %o", i, st.st_mode & S_IFMT);
        EXPECT(fcntl(fds[i], F_GETFL) & O_PATH, "descriptor %d is not O_PATH", i);
    }
    char text[40];
    EXPECT(read(setting, text, sizeof text) > 0, "the file in /proc/sys");
    EXPECT(attribute < 0 || read(attribute, text, sizeof text) > 0, "the file in /sys");
    subject_pass();
}
