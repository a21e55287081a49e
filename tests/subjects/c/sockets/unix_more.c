/* Unix sockets: bound by a relative name, to a name since unlinked, datagrams from several to one, a full queue. */
#include "../subject.h"
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_un named(const char *path)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    snprintf(name.sun_path, sizeof name.sun_path, "%s", path);
    return name;
}

static int datagram(const struct sockaddr_un *name)
{
    int fd = (int)MUST(socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0));
    if (name)
        MUST(bind(fd, (const struct sockaddr *)name, sizeof *name));
    return fd;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    MUST(mkdir(subject_path("folder"), 0700));
    MUST(chdir(subject_path("folder")));
    struct sockaddr_un relative = named("relative"), gone = named(subject_path("gone")), from;
    struct sockaddr_un server_name = named(subject_path("server"));
    int by_relative = datagram(&relative), unlinked = datagram(&gone), server = datagram(&server_name), full = 0;
    struct sockaddr_un sender_names[3];
    int senders[3];
    for (int i = 0; i < 3; i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s%d", subject_path("client"), i);
        sender_names[i] = named(path);
        senders[i] = datagram(&sender_names[i]);
        MUST(sendto(senders[i], path, (size_t)i + 1, 0, (struct sockaddr *)&server_name, sizeof server_name));
    }
    int peer = datagram(NULL);
    MUST(connect(peer, (struct sockaddr *)&gone, sizeof gone));
    MUST(unlink(gone.sun_path));
    MUST(send(peer, "to the unlinked", 15, 0));
    int filler = datagram(NULL);
    MUST(connect(filler, (struct sockaddr *)&relative, sizeof relative));
    while (send(filler, "again", 5, 0) == 5)
        full++;
    subject_wait(NULL);
    char text[100];
    for (int i = 0; i < 3; i++) {
        socklen_t length = sizeof from;
        ssize_t got = recvfrom(server, text, sizeof text, 0, (struct sockaddr *)&from, &length);
        EXPECT(got == i + 1 && strcmp(from.sun_path, sender_names[i].sun_path) == 0, "datagram %d: %zd bytes from %.90s", i,
               got, from.sun_path);
        MUST(sendto(server, "answer", 6, 0, (struct sockaddr *)&from, length));
        EXPECT(recv(senders[i], text, sizeof text, 0) == 6, "sender %d gets no answer", i);
    }
    EXPECT(recv(unlinked, text, sizeof text, 0) == 15, "what waited at the unlinked name");
    EXPECT(send(peer, "more", 4, 0) == 4 && recv(unlinked, text, sizeof text, 0) == 4, "the unlinked one lost its peer");
    for (int i = 0; i < full; i++)
        EXPECT(recv(by_relative, text, sizeof text, 0) == 5, "datagram %d of %d is missing", i, full);
    EXPECT(recv(by_relative, text, sizeof text, 0) == -1, "there is one more");
    int fresh = datagram(NULL);
    MUST(sendto(fresh, "found", 5, 0, (struct sockaddr *)&relative, sizeof relative));
    EXPECT(recv(by_relative, text, sizeof text, 0) == 5, "nobody finds the relative name");
    subject_pass();
}
