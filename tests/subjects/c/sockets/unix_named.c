/* Named Unix sockets: listening, connected with bytes waiting, connections not yet accepted. */
#include "../subject.h"
#include <sys/socket.h>
#include <sys/un.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sockaddr_un address = {.sun_family = AF_UNIX}, now;
    const char *path = subject_path("sock");
    if (strlen(path) >= sizeof address.sun_path)
        subject_skip("a folder with a short name");
    memcpy(address.sun_path, path, strlen(path));
    int listening = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    MUST(bind(listening, (struct sockaddr *)&address, sizeof address));
    MUST(listen(listening, 5));
    struct stat before, after;
    if (geteuid() == 0)
        MUST(chown(path, 1234, 5678));
    MUST(chmod(path, 0640));
    MUST(stat(path, &before));
    int client = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0)), queued = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    MUST(connect(client, (struct sockaddr *)&address, sizeof address));
    int server = (int)MUST(accept(listening, NULL, NULL));
    MUST(send(client, "to the server", 13, 0));
    MUST(send(server, "to the client", 13, 0));
    MUST(connect(queued, (struct sockaddr *)&address, sizeof address));
    MUST(send(queued, "early", 5, 0));
    subject_wait(NULL);
    MUST(stat(path, &after));
    EXPECT(after.st_uid == before.st_uid && after.st_gid == before.st_gid, "the file is of %d", (int)after.st_uid);
    EXPECT(after.st_mode == before.st_mode, "the mode of the file is %o", after.st_mode);
    char text[20] = "";
    EXPECT(recv(server, text, 13, MSG_DONTWAIT) == 13 && !strcmp(text, "to the server"), "the server got '%s'", text);
    EXPECT(recv(client, text, 13, MSG_DONTWAIT) == 13 && !strcmp(text, "to the client"), "the client got '%s'", text);
    MUST(fcntl(listening, F_SETFL, O_NONBLOCK));
    int accepted = (int)MUST(accept(listening, NULL, NULL));
    EXPECT(recv(accepted, text, 13, MSG_DONTWAIT) == 5 && !memcmp(text, "early", 5), "the queued one");
    int fresh = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    MUST(connect(fresh, (struct sockaddr *)&address, sizeof address));
    accepted = (int)MUST(accept(listening, NULL, NULL));
    socklen_t length = sizeof now;
    MUST(getpeername(client, (struct sockaddr *)&now, &length));
    EXPECT(strcmp(now.sun_path, address.sun_path) == 0, "the peer is '%.100s'", now.sun_path);
    subject_pass();
}
