/* Abstract and automatic names; bound datagram sockets with datagrams waiting, and whom they come from. */
#include "../subject.h"
#include <sys/socket.h>
#include <sys/un.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sockaddr_un name = {.sun_family = AF_UNIX}, from, automatic, now;
    int used = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "nbcr subject %d", (int)getpid());
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)used), got = sizeof from;
    int server = (int)MUST(socket(AF_UNIX, SOCK_DGRAM, 0)), client = (int)MUST(socket(AF_UNIX, SOCK_DGRAM, 0));
    MUST(bind(server, (struct sockaddr *)&name, length));
    MUST(bind(client, (struct sockaddr *)&name, sizeof(sa_family_t))); /* a name of the OS kernel's choice */
    socklen_t automatic_length = sizeof automatic;
    MUST(getsockname(client, (struct sockaddr *)&automatic, &automatic_length));
    MUST(connect(client, (struct sockaddr *)&name, length));
    MUST(send(client, "first", 5, 0));
    MUST(send(client, "second one", 10, 0));
    subject_wait(NULL);
    char text[20] = "";
    EXPECT(recvfrom(server, text, 20, MSG_DONTWAIT, (struct sockaddr *)&from, &got) == 5, "the first datagram");
    EXPECT(got == automatic_length && !memcmp(&from, &automatic, got), "it comes from somebody else");
    EXPECT(recv(server, text, 20, MSG_DONTWAIT) == 10 && !strcmp(text, "second one"), "the second datagram: '%s'", text);
    got = sizeof now;
    MUST(getsockname(server, (struct sockaddr *)&now, &got));
    EXPECT(got == length && !memcmp(&now, &name, got), "the name is another one");
    MUST(send(client, "x", 1, 0));
    EXPECT(recv(server, text, 20, MSG_DONTWAIT) == 1, "no longer connected");
    subject_pass();
}
