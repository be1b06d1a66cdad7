<?php
// php -S 127.0.0.1:PORT php.php
$handlers = explode(',', getenv('HANDLERS'));
$target = $_SERVER['REQUEST_URI'];
$parsed = parse_url($target, PHP_URL_PATH);
$split = strtok($target, '?');
$ways = [
    'parse_url' => $parsed,
    'parse_url_decoded' => rawurldecode((string) $parsed),
    'split_decoded' => rawurldecode($split),
    'decoded_parse_url' => parse_url(rawurldecode($split), PHP_URL_PATH),
    'urldecode_trimmed' => is_string($parsed) ? '/' . trim(urldecode($parsed), '/ ') : '',
    'lower' => trim(strtolower(rawurldecode((string) $parsed))),
    'PATH_INFO' => $_SERVER['PATH_INFO'] ?? $_SERVER['SCRIPT_NAME'] ?? '',
];
$found = [];
foreach ($ways as $way => $path) {
    foreach ([$way => $path, "$way/" => rtrim((string) $path, '/')] as $name => $read) {
        $found[] = "$name=" . (in_array($read, $handlers, true) ? $read : '-');
    }
}
header('Content-Type: text/plain');
echo implode(' ', $found);
