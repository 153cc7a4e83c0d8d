// What steps may change, kept on the device: numbers of double precision that cuda.rs reads and writes.
#pragma once
#include "cuda/common.cuh"

enum Guard : unsigned {
    APPLIED,     // 1 if this step changes something
    SCALE,       // what clipping leaves of its gradient
    UPDATES,     // steps so far that changed something
    ALLOWED,     // steps that may yet be skipped
    HALTED,      // 1 once a step was not finite and none may be skipped: nothing changes any more
    CORRECTION1, // 1 - beta1 ^ UPDATES
    CORRECTION2, // 1 - beta2 ^ UPDATES
    RECORDS      // three numbers a step: nats, norm, reason
};

enum Reason : unsigned { FINE, LOSS_NOT_FINITE, NORM_NOT_FINITE, UPDATE_NOT_FINITE, CAME_AFTER };
