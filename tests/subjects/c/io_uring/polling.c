/* A ring that polls network devices (IORING_REGISTER_NAPI): how long, and whether rather than being interrupted. */
#include "../io_uring.h"

#define REGISTER_NAPI 27 /* since Linux 6.9 */
#define UNREGISTER_NAPI 28

struct napi { /* struct io_uring_napi */
    uint32_t busy_poll_us;
    uint8_t prefer_busy_poll, operation, padding[2];
    uint32_t parameter, reserved;
};

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct ring ring, other;
    struct napi wanted = {.busy_poll_us = 70, .prefer_busy_poll = 1}, found = {0};
    ring_open(&ring, 8, 0, argc > 2 ? IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN : 0);
    ring_open(&other, 8, 0, 0);
    if (syscall(SYS_io_uring_register, ring.fd, REGISTER_NAPI, &wanted, 1))
        subject_skip("IORING_REGISTER_NAPI: %s", strerror(errno));
    subject_wait(NULL);
    MUST(syscall(SYS_io_uring_register, ring.fd, UNREGISTER_NAPI, &found, 1));
    EXPECT(found.busy_poll_us == 70 && found.prefer_busy_poll == 1, "it polls for %u us, %d", found.busy_poll_us,
           found.prefer_busy_poll);
    found.busy_poll_us = 0;
    MUST(syscall(SYS_io_uring_register, other.fd, UNREGISTER_NAPI, &found, 1));
    EXPECT(!found.busy_poll_us, "the other ring polls, too, for %u us", found.busy_poll_us);
    subject_pass();
}
