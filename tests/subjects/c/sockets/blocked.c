/* Threads blocked in accept and in recv go on when somebody comes. */
#include "tcp.h"
#include <pthread.h>

static int listening, pair[2];
static volatile bool accepted, received;

static void *accepting(void *argument)
{
    (void)argument;
    int fd = (int)MUST(accept(listening, NULL, NULL));
    accepted = true;
    expect_arrives(fd, 10, 1, "the accepted connection");
    return NULL;
}

static void *receiving(void *argument)
{
    (void)argument;
    char text[10];
    EXPECT(recv(pair[0], text, sizeof text, 0) == 3, "recv: %s", strerror(errno));
    received = true;
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct address at;
    listening = listening_at(AF_INET, &at);
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    pthread_t threads[2];
    MUST0(pthread_create(&threads[0], NULL, accepting, NULL));
    MUST0(pthread_create(&threads[1], NULL, receiving, NULL));
    subject_all_asleep(2);
    subject_wait(NULL);
    EXPECT(!accepted && !received, "a call ended by itself");
    send_filled(connected_to(&at), 10, 1);
    MUST(send(pair[1], "abc", 3, 0));
    for (int i = 0; i < 2; i++)
        MUST0(pthread_join(threads[i], NULL));
    subject_pass();
}
