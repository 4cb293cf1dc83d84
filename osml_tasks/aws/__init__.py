"""How requests reach AWS: one answer for boto3, obstore, GDAL and the runtime's own calls, and it is botocore's.

- ``addresses``: the host that a request goes to, and the region that it is signed for
- ``certificates``: what a server's certificate is checked with
- ``proxies``: the proxy on the way
- ``clients``: boto3's clients
- ``credentials``: what a request is signed with
- ``s3_client``: boto3's client of S3, which stays in its region
- ``s3_access``: all of that for the buckets of one session
- ``unreachable``: what to change where nobody answers
"""
