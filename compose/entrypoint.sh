#!/bin/sh
# What every container of the fleet starts with.
#
# `docker compose --profile local` adds an S3 server and an endpoint, but a profile cannot change the environment
# of other services. So each container asks whether they are there: only then has the name of the S3 server an
# address. What would lead to AWS itself is left out then; whatever else was set stays as it is.
set -eu

# Compose sets what has no value to nothing; boto3 refuses a bundle without a name.
[ -n "${AWS_CA_BUNDLE:-}" ] || unset AWS_CA_BUNDLE

if getent hosts local-s3 > /dev/null; then
    unset AWS_SESSION_TOKEN AWS_ENDPOINT_URL_STS ASYNC_SM_ASSUME_ROLE_ARN ASYNC_SM_EXTERNAL_ID
    # Only AWS has such names, and what its authority certifies.
    unset AWS_USE_FIPS_ENDPOINT AWS_USE_DUALSTACK_ENDPOINT AWS_CA_BUNDLE
    export AWS_ENDPOINT_URL_S3=http://local-s3:8333
    export AWS_ENDPOINT_URL_SAGEMAKER=http://local-endpoint:8080
    export AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME=http://local-endpoint:8080
    export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=only-in-this-network AWS_DEFAULT_REGION=us-east-1
    export AWS_ALLOW_HTTP=true AWS_EC2_METADATA_DISABLED=true
    # Docker may set both forms, from its own configuration; Python reads the small letters first.
    no_proxy="${no_proxy:-${NO_PROXY:-}}"
    export no_proxy="${no_proxy:+$no_proxy,}local-s3,local-endpoint"
    export NO_PROXY="$no_proxy"
    export ARTIFACT_BUCKET="${ARTIFACT_BUCKET:-${ASYNC_SM_INPUT_BUCKET:-osml-input}}"
    export ASYNC_SM_OUTPUT_BUCKET="${ASYNC_SM_OUTPUT_BUCKET:-osml-output}"
    if [ -z "${ASYNC_SM_POLLING_INTERVAL:-}${ASYNC_SM_MAX_POLLING_INTERVAL:-}" ]; then
        export ASYNC_SM_POLLING_INTERVAL=0.5 ASYNC_SM_MAX_POLLING_INTERVAL=2
    fi
fi

exec "$@"
