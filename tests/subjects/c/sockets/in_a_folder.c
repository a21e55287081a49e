/* A listening Unix socket in a folder of its own, which is removed when its process ends, as many programs do. */
#include "../subject.h"
#include <sys/socket.h>
#include <sys/un.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    MUST(mkdir(subject_path("door"), 0710));
    const char *path = subject_path("door/s");
    if (strlen(path) >= sizeof address.sun_path)
        subject_skip("a folder with a short name");
    memcpy(address.sun_path, path, strlen(path));
    int listening = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    MUST(bind(listening, (struct sockaddr *)&address, sizeof address));
    MUST(listen(listening, 5));
    subject_wait(NULL);
    struct stat about;
    MUST(stat(subject_path("door"), &about));
    EXPECT((about.st_mode & 07777) == 0710 && about.st_uid == geteuid(), "the folder's mode is %o", about.st_mode);
    int client = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    MUST(connect(client, (struct sockaddr *)&address, sizeof address));
    int server = (int)MUST(accept(listening, NULL, NULL));
    MUST(send(client, "x", 1, 0));
    char byte;
    EXPECT(recv(server, &byte, 1, 0) == 1 && byte == 'x', "what was sent");
    MUST(unlink(path));
    MUST(rmdir(subject_path("door")));
    subject_pass();
}
