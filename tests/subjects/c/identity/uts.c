/* Host and domain names of one's own, seen by a thread as well; with argv[2] names that are no texts (privileged). */
#include "../subject.h"
#include <pthread.h>
#include <sched.h>
#include <sys/utsname.h>

static const char *host = "inside.example", *domain = "the.domain";
static volatile bool runs, go;

static void check(const char *who)
{
    struct utsname names;
    MUST(uname(&names));
    EXPECT(strcmp(names.nodename, host) == 0, "%s: the host's name is %s", who, names.nodename);
    EXPECT(strcmp(names.domainname, domain) == 0, "%s: the domain's name is %s", who, names.domainname);
}

static void *look(void *argument)
{
    for (runs = true; !go;)
        subject_tick();
    check("a thread");
    return argument;
}

static void spoil(void)
{
    MUST(sethostname("spoiled", 7));
    MUST(setdomainname("spoiled", 7));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (argc > 2) {
        host = "a\nb\xff\x80 \xc3\xa4\"0123456789012345678901234567890123456789012345678901234";
        domain = "";
    }
    if (unshare(CLONE_NEWUTS))
        subject_skip("namespaces (CAP_SYS_ADMIN)");
    MUST(sethostname(host, strlen(host)));
    MUST(setdomainname(domain, strlen(domain)));
    pthread_t thread;
    MUST0(pthread_create(&thread, NULL, look, NULL));
    while (!runs)
        subject_tick();
    check("before");
    subject_wait(spoil);
    check("afterwards");
    go = true;
    MUST0(pthread_join(thread, NULL));
    MUST(sethostname("another", 7)); /* it may still, and it is nobody else's */
    subject_pass();
}
