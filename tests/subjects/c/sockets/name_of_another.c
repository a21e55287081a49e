/* Two listening Unix sockets that were bound to the same path, of which the first one's file is there now. */
#include "../subject.h"
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_un address = {.sun_family = AF_UNIX};

static int listening(void)
{
    int fd = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    MUST(bind(fd, (struct sockaddr *)&address, sizeof address));
    MUST(listen(fd, 5));
    return fd;
}

static void check_name(int fd, const char *which)
{
    struct sockaddr_un found = {0};
    socklen_t length = sizeof found;
    MUST(getsockname(fd, (struct sockaddr *)&found, &length));
    EXPECT(strcmp(found.sun_path, address.sun_path) == 0, "the %s is '%s'", which, found.sun_path);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    const char *path = subject_path("s"), *aside = subject_path("a");
    if (strlen(path) >= sizeof address.sun_path)
        subject_skip("a folder with a short name");
    memcpy(address.sun_path, path, strlen(path));
    int first = listening();
    MUST(rename(path, aside));
    int second = listening();
    MUST(rename(aside, path));
    subject_wait(NULL);
    check_name(first, "first");
    check_name(second, "second");
    int client = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    MUST(connect(client, (struct sockaddr *)&address, sizeof address));
    MUST(fcntl(second, F_SETFL, O_NONBLOCK));
    EXPECT(accept(second, NULL, NULL) == -1 && errno == EAGAIN, "the second one has the name");
    MUST(accept(first, NULL, NULL));
    EXPECT(access(aside, F_OK) == -1, "it is at its first place as well");
    MUST(unlink(path));
    subject_pass();
}
